$(eval $(call lib,imap,access store db mail base,))
$(eval $(call fuzz,imap_login,imap access store db mail base))
$(eval $(call fuzz,imap_session,imap access store db mail base))
$(eval $(call fuzz,mime,mail base))
