$(eval $(call program,pam,helpers/pam,daemon conf ipc ev mail base,-lpam))
