$(eval $(call lib,ev,base,-levent_core -levent_openssl -levent_pthreads -lssl -lcrypto))
