$(eval $(call lib,dns,ipc ev base,-lcrypto))
$(eval $(call fuzz,dns_message,dns base,-lcrypto))
