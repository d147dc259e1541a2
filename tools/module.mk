$(eval $(call program,bulkhead,tools,queue conf ipc ev daemon tls db mail base,-ljansson))
PROGRAMS += $(BIN)/mailq $(BIN)/newaliases
$(BIN)/mailq $(BIN)/newaliases: $(BIN)/bulkhead
	@ln -sf bulkhead $@
$(eval $(call fuzz,trace_line,ev ipc base,-ljansson))
$(O)/fuzz/trace_line: $(call objects,tools/trace_line.c helpers/log/format.c lib/daemon/log.c lib/daemon/counters.c gen/daemon/events.c)
$(eval $(call fuzz,edit,conf base))
$(O)/fuzz/edit: $(call objects,tools/edit.c)
