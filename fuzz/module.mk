$(eval $(call fuzz,ipc_decode,ipc base))
