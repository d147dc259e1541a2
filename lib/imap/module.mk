$(eval $(call lib,imap,store db mail base,))
