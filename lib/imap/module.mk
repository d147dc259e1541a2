$(eval $(call lib,imap,store db mail base,))
$(eval $(call fuzz,imap_login,imap store db mail base))
$(eval $(call fuzz,imap_session,imap store db mail base))
$(eval $(call fuzz,mime,mail base))
