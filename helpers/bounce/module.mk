$(eval $(call program,bounce,helpers/bounce,mail daemon conf ipc ev base,))
$(eval $(call fuzz,bounce,smtp mail base))
$(O)/fuzz/bounce: $(call objects,helpers/bounce/compose.c)
