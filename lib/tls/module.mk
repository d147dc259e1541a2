$(eval $(call lib,tls,daemon conf ipc ev base,-lssl -lcrypto))
