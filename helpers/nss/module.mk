$(eval $(call program,nss,helpers/nss,daemon conf ipc ev base,-lpthread))
