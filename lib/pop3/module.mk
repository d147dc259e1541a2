$(eval $(call lib,pop3,access mail base,))
$(eval $(call fuzz,pop3,pop3 access mail base,-lidn2 -lunistring))
