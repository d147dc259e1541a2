$(eval $(call lib,receive,smtp mail tls daemon conf ipc ev base,-lssl -lcrypto))
