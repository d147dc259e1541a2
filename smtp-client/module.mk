$(eval $(call program,smtp-client,smtp-client,daemon tls smtp mail conf ipc ev base,))
