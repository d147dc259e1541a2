$(eval $(call program,pop3d,pop3d,daemon conf pop3 access store mail ipc ev base,-lz))
