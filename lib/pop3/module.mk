$(eval $(call lib,pop3,imap mail base,))
