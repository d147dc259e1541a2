$(eval $(call lib,tls,daemon conf ipc ev base,-lssl -lcrypto))
$(eval $(call fuzz,tls_hello,tls daemon conf ipc ev base))
