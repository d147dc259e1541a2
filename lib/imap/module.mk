$(eval $(call lib,imap,mail base,))
