$(eval $(call program,bounce,helpers/bounce,mail daemon conf ipc ev base,))
