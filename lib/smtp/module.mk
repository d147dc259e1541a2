$(eval $(call lib,smtp,mail base,))
$(eval $(call fuzz,smtp_client,smtp mail base))
