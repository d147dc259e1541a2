$(eval $(call program,maps,helpers/maps,daemon db mail conf ipc ev base,-lpthread))
