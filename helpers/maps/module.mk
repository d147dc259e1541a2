$(eval $(call program,maps,helpers/maps,daemon db mail conf ipc ev base,-lpthread))
$(eval $(call fuzz,resolve,db mail conf base,-lpthread))
$(O)/fuzz/resolve: $(call objects,helpers/maps/address.c helpers/maps/expand.c helpers/maps/resolve.c helpers/maps/rewrite.c helpers/maps/route.c helpers/maps/transport.c)
