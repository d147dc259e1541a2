$(eval $(call lib,queue,mail base,-lpthread))
