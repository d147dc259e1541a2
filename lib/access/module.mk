$(eval $(call lib,access,mail base,))
