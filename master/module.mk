$(eval $(call program,master,master,tls db mail conf daemon ipc ev base))
