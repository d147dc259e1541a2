$(eval $(call lib,base,,))
