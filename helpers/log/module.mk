$(eval $(call program,log,helpers/log,conf daemon ipc ev base,-ljansson))
