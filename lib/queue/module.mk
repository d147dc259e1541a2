$(eval $(call lib,queue,mail base,-lpthread))
$(eval $(call fuzz,queue_file,queue base,))
