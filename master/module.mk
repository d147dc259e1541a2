$(eval $(call program,master,master,tls db conf daemon ipc ev base))
