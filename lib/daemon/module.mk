$(eval $(call lib,daemon,conf ipc ev base,-lseccomp))
