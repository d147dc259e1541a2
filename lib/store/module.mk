$(eval $(call lib,store,mail base,-llmdb -lz -lunistring))
