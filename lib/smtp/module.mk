$(eval $(call lib,smtp,mail base,))
$(eval $(call fuzz,smtp_client,smtp mail base))
$(eval $(call fuzz,smtp_server,smtp mail base))
$(eval $(call fuzz,mail_address,smtp mail base))
