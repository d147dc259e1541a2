$(eval $(call lib,store,mail base,-llmdb -lz -lunistring))
$(eval $(call fuzz,store_journal,store mail base,-llmdb -lz -lunistring))
$(eval $(call fuzz,store_files,store mail base,-llmdb -lz -lunistring))
$(eval $(call fuzz,content_view,store mail base,-llmdb -lz -lunistring))
