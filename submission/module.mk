$(eval $(call program,submission,submission,receive smtp mail tls daemon conf ipc ev base))
$(eval $(call program,sendmail,submission/sendmail,smtp mail conf ipc ev base))
$(eval $(call fuzz,sendmail,smtp mail conf base))
$(O)/fuzz/sendmail: $(call objects,submission/sendmail/message.c)
