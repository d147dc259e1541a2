$(eval $(call lib,receive,smtp mail tls daemon conf ipc ev base,-lssl -lcrypto))
$(eval $(call fuzz,submitted_head,mail base))
$(O)/fuzz/submitted_head: $(call objects,lib/receive/head.c)
