$(eval $(call fuzz,ipc_decode,ipc base))
$(eval $(call fuzz,small_parsers,queue smtp db mail base))
$(eval $(call fuzz,daemon_parsers,conf base))
$(O)/fuzz/daemon_parsers: $(call objects,smtp-client/policy_entry.c local/exits.c helpers/auth/mechanisms.c master/handover.c)
