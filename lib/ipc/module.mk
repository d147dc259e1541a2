$(eval $(call lib,ipc,ev base,))
