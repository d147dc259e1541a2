$(eval $(call lib,ipc,ev base,))
$(eval $(call fuzz,ipc_chan,ipc ev base))
