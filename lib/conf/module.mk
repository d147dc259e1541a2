$(eval $(call lib,conf,base,))
$(eval $(call fuzz,conf_main_cf,conf base))
$(eval $(call fuzz,conf_master_cf,conf base))
$(eval $(call fuzz,conf_snapshot,conf base))
$(O)/gen/conf/params.h $(O)/gen/conf/params.c $(O)/gen/conf/main.cf.5: lib/conf/postfix.def lib/conf/dovecot.def lib/conf/main.cf.5.head lib/conf/main.cf.5.tail
