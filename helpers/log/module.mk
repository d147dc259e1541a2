$(eval $(call program,log,helpers/log,conf daemon ipc ev base,-ljansson))
$(eval $(call fuzz,log_format,ipc base,-ljansson))
$(O)/fuzz/log_format: $(call objects,helpers/log/format.c helpers/metrics/families.c helpers/metrics/request.c)
