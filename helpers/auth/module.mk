$(eval $(call program,auth,helpers/auth,daemon db tls conf ipc ev mail base,-lsasl2 -lpthread))
