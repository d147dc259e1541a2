$(eval $(call program,local,local,daemon db mail conf ipc ev base,-lpthread))
