$(eval $(call program,bulkhead,tools,queue conf ipc ev daemon tls db mail base,-ljansson))
PROGRAMS += $(BIN)/mailq $(BIN)/newaliases
$(BIN)/mailq $(BIN)/newaliases: $(BIN)/bulkhead
	@ln -sf bulkhead $@
