$(eval $(call program,broker,helpers/broker,daemon conf ipc ev mail base,))
