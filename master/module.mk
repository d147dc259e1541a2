$(eval $(call program,master,master,tls conf daemon ipc ev base))
