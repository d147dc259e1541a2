$(eval $(call program,auth,helpers/auth,daemon queue db tls conf ipc ev mail base,-lsasl2 -lpthread))
$(eval $(call fuzz,sasl,db ev base,-lsasl2 -lpthread))
$(O)/fuzz/sasl: $(call objects,helpers/auth/sasl.c helpers/auth/sasl_client.c helpers/auth/cache.c)
