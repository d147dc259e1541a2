$(eval $(call lib,mail,base,-lidn2 -lunistring))
