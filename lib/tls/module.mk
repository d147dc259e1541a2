$(eval $(call lib,tls,base,-lssl -lcrypto))
