$(eval $(call lib,db,mail base,-llmdb -lpcre2-8 -lcrypto -lcrypt -lunistring))
$(eval $(call fuzz,alias,db base))
$(eval $(call fuzz,table,db base))
$(eval $(call fuzz,users_record,db mail base))
