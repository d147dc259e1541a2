$(eval $(call lib,pop3,imap mail base,))
$(eval $(call fuzz,pop3,pop3 imap mail base,-lidn2 -lunistring))
