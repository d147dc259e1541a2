$(eval $(call program,metrics,helpers/metrics,daemon conf ipc ev base))
