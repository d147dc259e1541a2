$(eval $(call program,pop3d,pop3d,daemon conf pop3 store imap mail ipc ev base,-lz))
