$(eval $(call program,local,local,daemon db mail conf ipc ev base,-lpthread))
$(eval $(call fuzz,local_content,mail base))
$(O)/fuzz/local_content: $(call objects,local/content.c)
