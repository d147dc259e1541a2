$(eval $(call fuzz,ipc_decode,ipc base))
$(eval $(call fuzz,small_parsers,queue smtp db mail base))
